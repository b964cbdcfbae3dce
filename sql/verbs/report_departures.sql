-- Which matrices of one subject are the furthest from a Gaussian?
-- param subject_id = 1: the subject
-- param limit = 12: how many rows
-- As in the named query departures_from_gaussian.
SELECT name, shape_class, ks, iqr_ratio, kurtosis_3s, kurtosis, ratio_3s, small_ratio, std, n
FROM departures(only_id := $subject_id)
ORDER BY mean_rank, ordinal
LIMIT $limit;
