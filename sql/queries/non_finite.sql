-- Which tensors hold NaN or infinity?
-- param subject = NULL: only this subject; all when NULL
SELECT subject, name, nan, pos_inf, neg_inf, (n - finite) / n AS non_finite_ratio, role, dtype, n
FROM tensor_stats
WHERE finite < n AND ($subject IS NULL OR subject = $subject)
ORDER BY n - finite DESC, subject_id, ordinal;
