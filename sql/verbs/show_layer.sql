-- How do the layers of one subject look?
-- param subject_id = 1: the subject
SELECT
    part, layer, tensors, matrices, n AS parameters, mean, std, skewness, kurtosis,
    ratio_3s, skewness_3s, kurtosis_3s, small_ratio, entropy, zeros, non_finite
FROM layer_stats
WHERE subject_id = $subject_id
ORDER BY part, layer NULLS LAST;
