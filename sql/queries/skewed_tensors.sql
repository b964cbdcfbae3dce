-- Which matrices are the most lopsided?
-- param subject = NULL: only this subject; all when NULL
-- param limit = 20: how many rows; all when NULL
SELECT subject, name, skewness_3s, skewness, mean, p50, std, n
FROM tensor_stats
WHERE is_matrix AND std > 0 AND ($subject IS NULL OR subject = $subject)
ORDER BY abs(skewness_3s) DESC, subject_id, ordinal
LIMIT $limit;
