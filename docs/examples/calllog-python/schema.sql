-- One row for each call. The key is what makes it safe to send a call twice: the hash of its Call-ID, which may itself be
-- longer than an index takes.
CREATE TABLE IF NOT EXISTS calls (
    key     text PRIMARY KEY,
    call_id text NOT NULL,
    caller  text NOT NULL,
    callee  text NOT NULL,
    outcome text NOT NULL,
    seconds integer NOT NULL,
    ended   timestamptz NOT NULL,
    stored  timestamptz NOT NULL DEFAULT now()
);
