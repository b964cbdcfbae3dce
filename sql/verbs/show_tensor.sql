-- How does each tensor of one subject look?
-- param subject_id = 1: the subject
SELECT
    name, role, dtype, shape, mean, std, skewness, kurtosis, min, max,
    ratio_3s, skewness_3s, kurtosis_3s, small_ratio, entropy, ks, shape_class, zeros, nan + pos_inf + neg_inf AS non_finite,
    reason
FROM tensor_stats
WHERE subject_id = $subject_id
ORDER BY ordinal;
