-- What a scan with --iid finds out about rows, columns and neighbours, and about singular values.

CREATE TABLE iid (
    tensor_id INTEGER NOT NULL,
    matrix BIGINT[],                    -- rows and columns that the tensor was seen as; NULL when not measured
    row_lag DOUBLE,                     -- correlation of neighbours in a row, less what is expected by chance
    row_lag_limit DOUBLE,               -- within +- this in 95 % of i.i.d. matrices
    column_lag DOUBLE,                  -- the same in a column
    column_lag_limit DOUBLE,
    row_spread DOUBLE,                  -- variance of the rows' mean squares, in units of what chance makes it
    row_spread_low DOUBLE,              -- between these in 95 % of i.i.d. matrices
    row_spread_high DOUBLE,
    row_sigma_cv DOUBLE,                -- how much rows' sigmas vary beyond chance, relative to sigma
    column_spread DOUBLE,
    column_spread_low DOUBLE,
    column_spread_high DOUBLE,
    column_sigma_cv DOUBLE,
    outlier_rows UBIGINT,               -- rows whose mean square is beyond chance; none in 95 % of i.i.d. matrices
    outlier_row BIGINT,                 -- the one the furthest from sigma, counted from 0, outlier or not
    outlier_row_ratio DOUBLE,           -- its sigma / that of the tensor
    outlier_columns UBIGINT,
    outlier_column BIGINT,
    outlier_column_ratio DOUBLE,
    singular_values UBIGINT,            -- how many were looked at, 0 where that cannot be; NULL when not asked for
    singular_distance DOUBLE,           -- Kolmogorov distance of squared singular values to Marchenko-Pastur
    singular_distance_limit DOUBLE,     -- below this in 95 % of i.i.d. matrices
    singular_beyond UBIGINT,            -- singular values beyond the edge; none in 95 % of i.i.d. matrices
    singular_ratio DOUBLE,              -- the largest singular value / that edge
    reason VARCHAR                      -- why numbers are missing
);

ALTER TABLE partials ADD COLUMN bands BLOB;       -- what is known of rows and columns; NULL when not asked for
ALTER TABLE subjects ADD COLUMN iid INTEGER;      -- NULL: not measured; else the largest smaller side of matrices whose singular values are there
