-- Matrices by how far they are from a Gaussian: the mean of three ranks, those of the Kolmogorov-Smirnov distance, of the
-- width of the middle half, and of the kurtosis within 3 sigma, which is 2.829 for a Gaussian. Ranks are among the matrices
-- of one subject, departures(only_subject := NAME) or departures(only_id := NUMBER), or of all.
CREATE OR REPLACE MACRO departures(only_subject := NULL, only_id := NULL) AS TABLE
SELECT
    *,
    (
        rank() OVER (ORDER BY ks DESC)
        + rank() OVER (ORDER BY abs(iqr_ratio - 1) DESC)
        + rank() OVER (ORDER BY abs(kurtosis_3s - 2.829) DESC)
    ) / 3 AS mean_rank
FROM tensor_stats
WHERE is_matrix AND std > 0
    AND (only_subject IS NULL OR subject = only_subject)
    AND (only_id IS NULL OR subject_id = only_id);
