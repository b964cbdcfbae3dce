-- Tables hold state that adds up; views hold the numbers derived from it.

CREATE SEQUENCE subject_numbers;  -- the number of a discarded subject is not given again

CREATE TABLE subjects (
    subject_id INTEGER PRIMARY KEY DEFAULT nextval('subject_numbers'),
    name VARCHAR NOT NULL,
    kind VARCHAR NOT NULL,              -- checkpoint, delta, adapter, merge, simulation
    uri VARCHAR NOT NULL,
    revision VARCHAR NOT NULL,          -- commit of a versioned store, '' elsewhere
    fingerprint VARCHAR NOT NULL,       -- changes when a file's size, version or header changes
    format VARCHAR NOT NULL,
    parent_ids INTEGER[] NOT NULL,
    spec JSON NOT NULL,                 -- the options that decide what the rows say
    engine_version VARCHAR NOT NULL,
    files INTEGER NOT NULL,
    bytes UBIGINT NOT NULL,             -- of all tensors in the checkpoint
    started_at TIMESTAMP NOT NULL,      -- UTC
    finished_at TIMESTAMP,
    status VARCHAR NOT NULL             -- running, complete
);

CREATE TABLE tensors (
    subject_id INTEGER NOT NULL,
    tensor_id INTEGER NOT NULL,
    ordinal INTEGER NOT NULL,           -- position in the checkpoint's files
    name VARCHAR NOT NULL,
    part VARCHAR NOT NULL,              -- tower or stage of a model of several, '' elsewhere
    layer INTEGER,
    module VARCHAR NOT NULL,            -- the model's own words
    role VARCHAR NOT NULL,              -- the same word across architectures
    dtype VARCHAR NOT NULL,
    coding VARCHAR,                     -- which codes the bins hold; NULL when not counted
    shape BIGINT[] NOT NULL,
    n UBIGINT NOT NULL,
    zeros UBIGINT,
    nan UBIGINT,
    pos_inf UBIGINT,
    neg_inf UBIGINT,
    small UBIGINT,                      -- finite, magnitude below 1e-3
    min DOUBLE,                         -- of the finite elements, like all that follows
    max DOUBLE,
    mean DOUBLE,
    m2 DOUBLE,                          -- central sums: sum((x - mean)^k)
    m3 DOUBLE,
    m4 DOUBLE,
    error_bound DOUBLE,                 -- of skewness and kurtosis; 0 when exact
    p001 DOUBLE, p01 DOUBLE, p05 DOUBLE, p25 DOUBLE, p50 DOUBLE,
    p75 DOUBLE, p95 DOUBLE, p99 DOUBLE, p999 DOUBLE,
    entropy DOUBLE,                     -- bits per element
    gaussian_entropy DOUBLE,            -- the same of a Gaussian with this mean and sigma in this coding
    ks DOUBLE,                          -- Kolmogorov-Smirnov distance to the fitted normal
    zero_rows UBIGINT,                  -- rows of zeros; NULL when not known
    note VARCHAR,                       -- what a reader should know about the counts
    reason VARCHAR                      -- why a tensor is not counted
);

CREATE TABLE bins (
    tensor_id INTEGER NOT NULL,
    code USMALLINT NOT NULL,
    n UBIGINT NOT NULL,
    low_sum UBIGINT,                    -- NULL for complete codings
    low_square_sum UBIGINT
);

CREATE TABLE filtered (
    tensor_id INTEGER NOT NULL,
    sigmas DOUBLE NOT NULL,
    floor DOUBLE NOT NULL,
    kept UBIGINT NOT NULL,
    ratio DOUBLE,
    mean DOUBLE,
    std DOUBLE,
    skewness DOUBLE,
    kurtosis DOUBLE,
    error_bound DOUBLE NOT NULL         -- none of the numbers of the row is off by more
);

-- What an interrupted scan knows of tensors that it had begun.
CREATE TABLE partials (
    subject_id INTEGER NOT NULL,
    ordinal INTEGER NOT NULL,
    spans BIGINT[] NOT NULL,            -- start, stop, start, stop, ... of the elements counted
    codes USMALLINT[] NOT NULL,
    n UBIGINT[] NOT NULL,
    low_sum UBIGINT[],
    low_square_sum UBIGINT[],
    zeros UBIGINT NOT NULL,
    min DOUBLE NOT NULL,
    max DOUBLE NOT NULL
);

-- What each code stands for: value, or value + low * step with low in 0..65535.
CREATE TABLE codes (
    coding VARCHAR NOT NULL,
    code USMALLINT NOT NULL,
    value DOUBLE NOT NULL,
    step DOUBLE NOT NULL
);

-- Adaptation runs, their scores by step, and the learnt scalar of each tensor.
CREATE TABLE runs (
    run_id INTEGER PRIMARY KEY,
    name VARCHAR NOT NULL,
    method VARCHAR,
    task VARCHAR,
    seed INTEGER,
    subject_id INTEGER,
    spec JSON,
    started_at TIMESTAMP,
    finished_at TIMESTAMP,
    status VARCHAR
);
CREATE TABLE metrics (run_id INTEGER NOT NULL, step BIGINT NOT NULL, name VARCHAR NOT NULL, value DOUBLE NOT NULL);
CREATE TABLE scalars (run_id INTEGER NOT NULL, tensor VARCHAR NOT NULL, value DOUBLE NOT NULL);
