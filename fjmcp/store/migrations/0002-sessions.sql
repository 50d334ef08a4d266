-- A session holds a child only while it needs one; this is what it is made of
-- again after the child, the daemon or the machine has ended.
CREATE TABLE sessions (
    session         {blob} PRIMARY KEY,         -- digest of the id
    account_id      BIGINT NOT NULL,
    client_id       TEXT NOT NULL,
    opening         TEXT NOT NULL,              -- JSON: what a child is told first
    told            {blob} NOT NULL,            -- the result of initialize that the client was given
    created_at      DOUBLE PRECISION NOT NULL,
    used_at         DOUBLE PRECISION NOT NULL   -- written now and then, not at each request
);
CREATE INDEX sessions_by_connection ON sessions (account_id, client_id, used_at);
CREATE INDEX sessions_by_use ON sessions (used_at);
