-- What do the weights of each layer look like?
-- param subject = NULL: only this subject; all when NULL
SELECT
    subject, part, layer, tensors, matrices, n, mean, std, ratio_3s, skewness_3s, kurtosis_3s, small_ratio, entropy
FROM layer_stats
WHERE $subject IS NULL OR subject = $subject
ORDER BY subject_id, layer IS NULL, part, layer;
