-- What do the weights of each role look like?
-- param subject = NULL: only this subject; all when NULL
SELECT subject, role, tensors, matrices, n, mean, std, ratio_3s, skewness_3s, kurtosis_3s, small_ratio, entropy
FROM role_stats
WHERE $subject IS NULL OR subject = $subject
ORDER BY subject_id, n DESC, role;
