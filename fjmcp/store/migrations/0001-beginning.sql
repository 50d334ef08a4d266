-- Times are seconds since the epoch.  Secrets of ours stand here as digests
-- (SHA-256), secrets that must be given back are sealed by the vault.

CREATE TABLE clients (
    client_id       TEXT PRIMARY KEY,
    auth_method     TEXT NOT NULL,              -- none, client_secret_post, client_secret_basic
    secret_digest   {blob},                     -- NULL for none
    metadata        TEXT NOT NULL,              -- JSON, as judged at registration
    created_at      DOUBLE PRECISION NOT NULL
);

-- One row for one Forgejo user, with its one upstream credential.
CREATE TABLE accounts (
    account_id      BIGINT PRIMARY KEY,         -- the numeric user id at Forgejo
    login           TEXT NOT NULL,              -- for people to read; it may change
    credential      {blob},                     -- sealed pair; NULL when there is none
    version         BIGINT NOT NULL,            -- of the credential; each new pair adds one
    forge_grant     BIGINT,                     -- `gnt` of the pair, where its JWT can be read
    forge_count     BIGINT,                     -- `cnt` of the pair, likewise
    received_at     DOUBLE PRECISION NOT NULL,  -- when Forgejo's reply with the pair came
    expires_at      DOUBLE PRECISION NOT NULL,  -- end of the access token at Forgejo
    dead_since      DOUBLE PRECISION,           -- set when Forgejo refused the credential, or its person may not come in
    refresh_owner   TEXT,                       -- who has claimed the refresh
    refresh_until   DOUBLE PRECISION,           -- when that claim lapses
    retry_after     DOUBLE PRECISION,           -- no refresh before, after a troubled one
    signed_in_at    DOUBLE PRECISION NOT NULL
);

-- One authorization under way in one browser, from the consent page to the code.
CREATE TABLE signins (
    signin          {blob} PRIMARY KEY,         -- digest of the id in our consent form
    browser         {blob} NOT NULL,            -- digest of the browser's cookie
    client_id       TEXT NOT NULL,
    request         TEXT NOT NULL,              -- JSON, the authorization request as judged
    upstream_state  {blob} UNIQUE,              -- digest; NULL until the person consented
    upstream_verifier {blob},                   -- sealed PKCE verifier for Forgejo
    exchange_from   DOUBLE PRECISION,           -- when its code went to Forgejo; once only
    exchange_until  DOUBLE PRECISION,           -- while somebody works on it: until then
    credential      {blob},                     -- sealed pair, between exchange and account
    created_at      DOUBLE PRECISION NOT NULL,
    expires_at      DOUBLE PRECISION NOT NULL
);
CREATE INDEX signins_by_expiry ON signins (expires_at);

CREATE TABLE codes (
    code            {blob} PRIMARY KEY,         -- digest
    client_id       TEXT NOT NULL,
    account_id      BIGINT NOT NULL,
    request         TEXT NOT NULL,              -- JSON, the authorization request it answers
    expires_at      DOUBLE PRECISION NOT NULL,
    grant_id        TEXT                        -- the grant born of it; NULL until redeemed
);

CREATE TABLE grants (
    grant_id        TEXT PRIMARY KEY,
    account_id      BIGINT NOT NULL,
    client_id       TEXT NOT NULL,
    scopes          TEXT NOT NULL,              -- granted, space-separated
    created_at      DOUBLE PRECISION NOT NULL,
    used_at         DOUBLE PRECISION NOT NULL,
    ended_at        DOUBLE PRECISION,           -- NULL while it lives
    end_reason      TEXT
);
CREATE INDEX grants_by_account ON grants (account_id);
CREATE INDEX grants_by_client ON grants (client_id);

CREATE TABLE access_tokens (
    token           {blob} PRIMARY KEY,         -- digest
    grant_id        TEXT NOT NULL,
    expires_at      DOUBLE PRECISION NOT NULL
);
CREATE INDEX access_tokens_by_grant ON access_tokens (grant_id);

CREATE TABLE refresh_tokens (
    token           {blob} PRIMARY KEY,         -- digest
    grant_id        TEXT NOT NULL,
    predecessor     {blob},                     -- digest of the token it replaced
    issued_at       DOUBLE PRECISION NOT NULL,
    used_at         DOUBLE PRECISION,           -- NULL while it is the newest
    successor       {blob}                      -- sealed pair given for it, until the grace ends
);
CREATE INDEX refresh_tokens_by_grant ON refresh_tokens (grant_id);
CREATE INDEX refresh_tokens_by_predecessor ON refresh_tokens (predecessor);
CREATE INDEX refresh_tokens_in_grace ON refresh_tokens (used_at) WHERE successor IS NOT NULL;
