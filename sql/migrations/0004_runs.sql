-- What must be known of an adaptation run, beside its scores. A run is known by its name, SWEEP/RUN.

ALTER TABLE runs ADD COLUMN sweep VARCHAR;            -- the configuration's name
ALTER TABLE runs ADD COLUMN label VARCHAR;            -- what tells the method from others of its sweep
ALTER TABLE runs ADD COLUMN r INTEGER;                -- rank, 0 for methods without
ALTER TABLE runs ADD COLUMN model VARCHAR;
ALTER TABLE runs ADD COLUMN folder VARCHAR;           -- what was learnt is in its subfolder `learnt`
ALTER TABLE runs ADD COLUMN parameters UBIGINT;       -- numbers that learnt, the head's among them
ALTER TABLE runs ADD COLUMN head_parameters UBIGINT;
ALTER TABLE runs ADD COLUMN steps UBIGINT;            -- updates
ALTER TABLE runs ADD COLUMN seconds DOUBLE;           -- of training, what was lost with a worker not counted
ALTER TABLE runs ADD COLUMN reason VARCHAR;           -- why it failed
ALTER TABLE runs ADD COLUMN engine_version VARCHAR;
