-- Which matrices of one subject are outside of the limits of i.i.d. elements?
-- param subject_id = 1: the subject
-- Those that are outside of most come first.
SELECT
    name, matrix, array_to_string(outside, ', ') AS outside, row_lag, row_lag_limit, column_lag, column_lag_limit,
    row_spread, row_spread_high, row_sigma_cv, column_spread, column_spread_high, column_sigma_cv,
    outlier_rows, outlier_row, outlier_row_ratio, outlier_columns, outlier_column, outlier_column_ratio,
    singular_distance, singular_distance_limit, singular_beyond, singular_ratio
FROM iid_stats
WHERE subject_id = $subject_id AND len(outside) > 0
ORDER BY len(iid_stats.outside) DESC, greatest(row_sigma_cv, column_sigma_cv) DESC NULLS LAST, ordinal;
