-- Which matrices are the furthest from a Gaussian?
-- param subject = NULL: only this subject; all when NULL
-- param limit = 20: how many rows; all when NULL
-- By the mean of three ranks: Kolmogorov-Smirnov distance, width of the middle half, and kurtosis within
-- 3 sigma, which is 2.829 for a Gaussian. entropy_gap is only shown: in a small tensor it is large by chance.
WITH ranked AS (
    SELECT
        *,
        (
            rank() OVER (ORDER BY ks DESC)
            + rank() OVER (ORDER BY abs(iqr_ratio - 1) DESC)
            + rank() OVER (ORDER BY abs(kurtosis_3s - 2.829) DESC)
        ) / 3 AS mean_rank
    FROM tensor_stats
    WHERE is_matrix AND std > 0 AND ($subject IS NULL OR subject = $subject)
)
SELECT subject, name, mean_rank, shape_class, ks, iqr_ratio, kurtosis_3s, kurtosis, entropy_gap, n
FROM ranked
ORDER BY mean_rank, subject_id, ordinal
LIMIT $limit;
