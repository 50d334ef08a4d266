-- Identical registrations shortly after one another are one client; each of them
-- was given a secret of its own, and a token to manage it (RFC 7592).
CREATE TABLE registrations (
    token           {blob} PRIMARY KEY,         -- digest of its registration access token
    client_id       TEXT NOT NULL,
    secret_digest   {blob},                     -- NULL for none
    created_at      DOUBLE PRECISION NOT NULL
);
CREATE INDEX registrations_by_client ON registrations (client_id);

ALTER TABLE clients ADD COLUMN fingerprint {blob};          -- digest of its metadata; NULL: joins nobody
ALTER TABLE clients ADD COLUMN used_at DOUBLE PRECISION;    -- when a grant was last born or used; NULL: never
UPDATE clients SET used_at = (SELECT MAX(used_at) FROM grants WHERE grants.client_id = clients.client_id);
CREATE INDEX clients_by_fingerprint ON clients (fingerprint, created_at);
CREATE INDEX clients_by_use ON clients (used_at, created_at);
-- Whether a client has one: asked at each registration.
CREATE INDEX codes_by_client ON codes (client_id);
CREATE INDEX signins_by_client ON signins (client_id);
-- Its other tabs: asked when somebody has signed in.
CREATE INDEX signins_by_browser ON signins (browser);

-- Client ID Metadata Documents, as they were last good.
CREATE TABLE documents (
    client_id       TEXT PRIMARY KEY,           -- the URL of the document
    metadata        TEXT NOT NULL,              -- JSON, as judged
    fetched_at      DOUBLE PRECISION NOT NULL,
    fresh_until     DOUBLE PRECISION NOT NULL,
    used_at         DOUBLE PRECISION            -- when a grant was last born or used; NULL: never
);

-- Which account a browser was last seen to belong to, and what was consented to.
CREATE TABLE browsers (
    browser         {blob} PRIMARY KEY,         -- digest of its cookie
    account_id      BIGINT NOT NULL,
    expires_at      DOUBLE PRECISION NOT NULL
);
CREATE INDEX browsers_by_account ON browsers (account_id);
CREATE INDEX browsers_by_expiry ON browsers (expires_at);
CREATE TABLE consents (
    consent         {blob} PRIMARY KEY,         -- digest of all that was consented to
    account_id      BIGINT NOT NULL,
    client_id       TEXT NOT NULL,
    expires_at      DOUBLE PRECISION NOT NULL
);
CREATE INDEX consents_by_client ON consents (account_id, client_id);
CREATE INDEX consents_by_expiry ON consents (expires_at);

ALTER TABLE signins ADD COLUMN known_as BIGINT;             -- whose this browser was when it began
ALTER TABLE signins ADD COLUMN came_as BIGINT;              -- who came back instead, and is to say so
ALTER TABLE signins ADD COLUMN remembered BIGINT;           -- 1: a remembered consent stood for our page

-- Which of a client's registrations a grant is of.
ALTER TABLE grants ADD COLUMN secret_digest {blob};         -- NULL: it has no secret, or an operator made it

-- A token that an operator made is a grant with a name and an end of its own.
ALTER TABLE grants ADD COLUMN name TEXT;                    -- NULL for a client's
ALTER TABLE grants ADD COLUMN expires_at DOUBLE PRECISION;  -- NULL: when the rules end it

ALTER TABLE accounts ADD COLUMN dead_reason TEXT;           -- why dead_since is set or stays; NULL: Forgejo refused
