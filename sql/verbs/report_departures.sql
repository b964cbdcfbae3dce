-- Which matrices of one subject are the furthest from a Gaussian?
-- param subject_id = 1: the subject
-- param limit = 12: how many rows
-- As in the named query departures_from_gaussian.
WITH ranked AS (
    SELECT
        *,
        (
            rank() OVER (ORDER BY ks DESC)
            + rank() OVER (ORDER BY abs(iqr_ratio - 1) DESC)
            + rank() OVER (ORDER BY abs(kurtosis_3s - 2.829) DESC)
        ) / 3 AS mean_rank
    FROM tensor_stats
    WHERE subject_id = $subject_id AND is_matrix AND std > 0
)
SELECT name, shape_class, ks, iqr_ratio, kurtosis_3s, kurtosis, ratio_3s, small_ratio, std, n
FROM ranked
ORDER BY mean_rank, ordinal
LIMIT $limit;
