-- Which roles of one subject are not i.i.d.?
-- param subject_id = 1: the subject
SELECT
    role, verdict, matrices, row_lag, column_lag, row_sigma_cv, column_sigma_cv, outlier_rows, outlier_columns,
    singular_beyond,
    row_lag_outside, column_lag_outside, row_spread_outside, column_spread_outside,
    outlier_rows_outside, outlier_columns_outside, distance_outside, beyond_outside
FROM iid_roles
WHERE subject_id = $subject_id
ORDER BY verdict = 'i.i.d.', role;
