-- Which matrices have the heaviest tails?
-- param subject = NULL: only this subject; all when NULL
-- param limit = 20: how many rows; all when NULL
SELECT subject, name, kurtosis, kurtosis_3s, ratio_3s, min, max, std, n
FROM tensor_stats
WHERE is_matrix AND std > 0 AND ($subject IS NULL OR subject = $subject)
ORDER BY kurtosis DESC, subject_id, ordinal
LIMIT $limit;
