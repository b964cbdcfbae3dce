-- What a census could not take in, and why. A checkpoint that is scanned after all leaves this table.

CREATE TABLE refusals (
    uri VARCHAR NOT NULL,
    fingerprint VARCHAR NOT NULL,       -- '' when it could not even be opened
    spec JSON NOT NULL,                 -- as in subjects
    status VARCHAR NOT NULL,            -- refused: the checkpoint is at fault; failed: a machine was, and may not be next time
    reason VARCHAR NOT NULL,
    engine_version VARCHAR NOT NULL,
    first_at TIMESTAMP NOT NULL,        -- UTC
    last_at TIMESTAMP NOT NULL
);
