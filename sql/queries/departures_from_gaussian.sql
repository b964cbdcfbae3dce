-- Which matrices are the furthest from a Gaussian?
-- param subject = NULL: only this subject; all when NULL
-- param limit = 20: how many rows; all when NULL
-- By the mean of three ranks: Kolmogorov-Smirnov distance, width of the middle half, and kurtosis within
-- 3 sigma, which is 2.829 for a Gaussian. entropy_gap is only shown: in a small tensor it is large by chance.
SELECT subject, name, mean_rank, shape_class, ks, iqr_ratio, kurtosis_3s, kurtosis, entropy_gap, n
FROM departures(only_subject := $subject)
ORDER BY mean_rank, subject_id, ordinal
LIMIT $limit;
