-- Are the elements of a matrix draws of one distribution, whatever their places? Of matrices that were scanned with --iid.

-- One row a matrix; `outside` are the words for the numbers that lie outside of what chance allows in 95 of 100 cases.
CREATE OR REPLACE VIEW iid_stats AS
SELECT
    subject_id, subject, tensor_id, ordinal, name, part, layer, module, role, iid_matrix AS matrix,
    list_filter([
        CASE WHEN abs(row_lag) > row_lag_limit THEN 'neighbours in rows' END,
        CASE WHEN abs(column_lag) > column_lag_limit THEN 'neighbours in columns' END,
        CASE WHEN NOT row_spread BETWEEN row_spread_low AND row_spread_high THEN 'sigmas of rows' END,
        CASE WHEN NOT column_spread BETWEEN column_spread_low AND column_spread_high THEN 'sigmas of columns' END,
        CASE WHEN outlier_rows > 0 THEN 'outlier rows' END,
        CASE WHEN outlier_columns > 0 THEN 'outlier columns' END,
        CASE WHEN singular_distance > singular_distance_limit THEN 'singular values' END,
        CASE WHEN singular_beyond > 0 THEN 'low rank' END
    ], lambda word: word IS NOT NULL) AS outside,
    row_lag, row_lag_limit, column_lag, column_lag_limit,
    row_spread, row_spread_low, row_spread_high, row_sigma_cv,
    column_spread, column_spread_low, column_spread_high, column_sigma_cv,
    outlier_rows, outlier_row, outlier_row_ratio, outlier_columns, outlier_column, outlier_column_ratio,
    singular_values, singular_distance, singular_distance_limit, singular_beyond, singular_ratio
FROM tensor_stats
WHERE is_matrix AND iid_matrix IS NOT NULL AND coalesce(row_lag, column_lag) IS NOT NULL;

-- One row a role. It departs where more matrices are outside than a twentieth and three standard deviations.
-- *_outside are matrices, row_lag to column_sigma_cv medians over them, the other numbers sums.
CREATE OR REPLACE VIEW iid_roles AS
WITH counted AS (
    SELECT
        subject_id, subject, role,
        count(*) AS matrices,
        floor(0.05 * matrices + 3 * sqrt(0.0475 * matrices)) AS allowed,
        count(*) FILTER (list_contains(outside, 'neighbours in rows')) AS row_lag_outside,
        count(*) FILTER (list_contains(outside, 'neighbours in columns')) AS column_lag_outside,
        count(*) FILTER (list_contains(outside, 'sigmas of rows')) AS row_spread_outside,
        count(*) FILTER (list_contains(outside, 'sigmas of columns')) AS column_spread_outside,
        count(*) FILTER (list_contains(outside, 'outlier rows')) AS outlier_rows_outside,
        count(*) FILTER (list_contains(outside, 'outlier columns')) AS outlier_columns_outside,
        count(*) FILTER (list_contains(outside, 'singular values')) AS distance_outside,
        count(*) FILTER (list_contains(outside, 'low rank')) AS beyond_outside,
        median(row_lag) AS row_lag,
        median(column_lag) AS column_lag,
        median(row_sigma_cv) AS row_sigma_cv,
        median(column_sigma_cv) AS column_sigma_cv,
        sum(outlier_rows)::BIGINT AS outlier_rows,
        sum(outlier_columns)::BIGINT AS outlier_columns,
        sum(singular_beyond)::BIGINT AS singular_beyond
    FROM iid_stats
    GROUP BY subject_id, subject, role
)
SELECT
    subject_id, subject, role, matrices,
    coalesce(nullif(concat_ws(', ',
        CASE WHEN row_lag_outside > allowed THEN 'neighbours in rows' END,
        CASE WHEN column_lag_outside > allowed THEN 'neighbours in columns' END,
        CASE WHEN row_spread_outside > allowed THEN 'sigmas of rows' END,
        CASE WHEN column_spread_outside > allowed THEN 'sigmas of columns' END,
        CASE WHEN outlier_rows_outside > allowed THEN 'outlier rows' END,
        CASE WHEN outlier_columns_outside > allowed THEN 'outlier columns' END,
        CASE WHEN distance_outside > allowed THEN 'singular values' END,
        CASE WHEN beyond_outside > allowed THEN 'low rank' END
    ), ''), 'i.i.d.') AS verdict,
    row_lag, column_lag, row_sigma_cv, column_sigma_cv, outlier_rows, outlier_columns, singular_beyond,
    row_lag_outside, column_lag_outside, row_spread_outside, column_spread_outside,
    outlier_rows_outside, outlier_columns_outside, distance_outside, beyond_outside
FROM counted;
