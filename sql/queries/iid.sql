-- Which roles are not i.i.d.?
-- param subject = NULL: only this subject; all when NULL
-- Of matrices that were scanned with --iid. Of i.i.d. ones each number is inside its limits in 95 of 100 cases, so a role
-- departs where more matrices are outside than a twentieth and three standard deviations. *_outside are matrices.
WITH judged AS (
    SELECT
        subject_id, subject, role,
        abs(row_lag) > row_lag_limit AS row_lag_out,
        abs(column_lag) > column_lag_limit AS column_lag_out,
        NOT row_spread BETWEEN row_spread_low AND row_spread_high AS row_spread_out,
        NOT column_spread BETWEEN column_spread_low AND column_spread_high AS column_spread_out,
        outlier_rows > 0 AS rows_out,
        outlier_columns > 0 AS columns_out,
        singular_distance > singular_distance_limit AS distance_out,
        singular_beyond > 0 AS beyond_out,
        row_lag, column_lag, row_sigma_cv, column_sigma_cv, outlier_rows, outlier_columns, singular_beyond
    FROM tensor_stats
    WHERE is_matrix AND iid_matrix IS NOT NULL AND coalesce(row_lag, column_lag) IS NOT NULL
        AND ($subject IS NULL OR subject = $subject)
),
counted AS (
    SELECT
        subject_id, subject, role,
        count(*) AS matrices,
        floor(0.05 * matrices + 3 * sqrt(0.0475 * matrices)) AS allowed,
        count(*) FILTER (row_lag_out) AS row_lag_outside,
        count(*) FILTER (column_lag_out) AS column_lag_outside,
        count(*) FILTER (row_spread_out) AS row_spread_outside,
        count(*) FILTER (column_spread_out) AS column_spread_outside,
        count(*) FILTER (rows_out) AS outlier_rows_outside,
        count(*) FILTER (columns_out) AS outlier_columns_outside,
        count(*) FILTER (distance_out) AS distance_outside,
        count(*) FILTER (beyond_out) AS beyond_outside,
        median(row_lag) AS row_lag,
        median(column_lag) AS column_lag,
        median(row_sigma_cv) AS row_sigma_cv,
        median(column_sigma_cv) AS column_sigma_cv,
        sum(outlier_rows)::BIGINT AS outlier_rows,
        sum(outlier_columns)::BIGINT AS outlier_columns,
        sum(singular_beyond)::BIGINT AS singular_beyond
    FROM judged
    GROUP BY subject_id, subject, role
)
SELECT
    subject, role, matrices,
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
FROM counted
ORDER BY subject_id, verdict = 'i.i.d.', role;
