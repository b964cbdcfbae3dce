-- How does each tensor of one subject look, in brief?
-- param subject_id = 1: the subject
SELECT
    name, part, layer, role, dtype, shape, n, mean, std, min, max, ratio_3s, skewness_3s, kurtosis_3s, kurtosis,
    small_ratio, ks, shape_class
FROM tensor_stats
WHERE subject_id = $subject_id AND reason IS NULL
ORDER BY ordinal;
