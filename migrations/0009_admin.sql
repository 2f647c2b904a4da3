-- Who may look at the gateway and operate it, and what they did.

CREATE TABLE tollgate.admin_tokens (
    name       text COLLATE "C" PRIMARY KEY,
    scope      text NOT NULL,
    hash       bytea NOT NULL UNIQUE,
    created_at timestamptz NOT NULL DEFAULT clock_timestamp(),
    created_by text NOT NULL,
    expires_at timestamptz,
    used_at    timestamptz,
    CONSTRAINT admin_tokens_name CHECK (name ~ '^[a-z0-9][a-z0-9_.-]{0,62}$' AND name NOT IN ('admin', 'local')),
    CONSTRAINT admin_tokens_scope CHECK (scope IN ('read', 'operate', 'admin')),
    CONSTRAINT admin_tokens_hash CHECK (octet_length(hash) = 32)
);
COMMENT ON TABLE tollgate.admin_tokens IS 'Tokens of the admin listener, beside the one in the settings. Deleting a row revokes the token at once, and ends the sessions that were begun with it';
COMMENT ON INDEX tollgate.admin_tokens_hash_key IS 'To find whose token this is';
COMMENT ON COLUMN tollgate.admin_tokens.name IS 'Whose it is, or what for; stands in audit_log. admin is the token of the settings, local is who needs none';
COMMENT ON COLUMN tollgate.admin_tokens.scope IS 'read: look. operate: also replay, retry, pause. admin: also tokens, consumers, handlers';
COMMENT ON COLUMN tollgate.admin_tokens.hash IS 'SHA-256 of the token, which has 256 random bits of its own: nothing to stretch or to salt';
COMMENT ON COLUMN tollgate.admin_tokens.created_at IS 'When it was made';
COMMENT ON COLUMN tollgate.admin_tokens.created_by IS 'By whom';
COMMENT ON COLUMN tollgate.admin_tokens.expires_at IS 'From when on it is refused; null: never';
COMMENT ON COLUMN tollgate.admin_tokens.used_at IS 'When it was last used, to the minute';

CREATE TABLE tollgate.admin_sessions (
    hash       bytea PRIMARY KEY,
    token_hash bytea NOT NULL,
    created_at timestamptz NOT NULL DEFAULT clock_timestamp(),
    seen_at    timestamptz NOT NULL DEFAULT clock_timestamp(),
    CONSTRAINT admin_sessions_hash CHECK (octet_length(hash) = 32 AND octet_length(token_hash) = 32)
);
COMMENT ON TABLE tollgate.admin_sessions IS 'Browsers that have logged in. A session is as good as the token it was begun with';
COMMENT ON COLUMN tollgate.admin_sessions.hash IS 'SHA-256 of what stands in the cookie';
COMMENT ON COLUMN tollgate.admin_sessions.token_hash IS 'SHA-256 of the token: one of admin_tokens, or that of the settings';
COMMENT ON COLUMN tollgate.admin_sessions.created_at IS 'When it began';
COMMENT ON COLUMN tollgate.admin_sessions.seen_at IS 'When it was last used, to the minute';

CREATE TABLE tollgate.audit_log (
    entry   bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    at      timestamptz NOT NULL DEFAULT clock_timestamp(),
    actor   text NOT NULL,
    action  text COLLATE "C" NOT NULL,
    subject text NOT NULL,
    detail  jsonb NOT NULL DEFAULT '{}',
    CONSTRAINT audit_log_told CHECK (actor <> '' AND action <> '')
);
COMMENT ON TABLE tollgate.audit_log IS 'What people did through the dashboard, the admin API and the command line. Written in the transaction that does it';
COMMENT ON SEQUENCE tollgate.audit_log_entry_seq IS 'Numbers of the entries';
COMMENT ON COLUMN tollgate.audit_log.entry IS 'Number of the entry';
COMMENT ON COLUMN tollgate.audit_log.at IS 'When';
COMMENT ON COLUMN tollgate.audit_log.actor IS 'Name of the token; admin for the one in the settings, local for who needed none, cli:USER for the command line';
COMMENT ON COLUMN tollgate.audit_log.action IS 'Stable code, for example consumer.pause';
COMMENT ON COLUMN tollgate.audit_log.subject IS 'What it was done to: the name of a consumer, the id of an event';
COMMENT ON COLUMN tollgate.audit_log.detail IS 'How, as the action needs it; never a secret';
