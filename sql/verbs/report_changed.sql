-- Which tensors has one difference or adapter changed most?
-- param subject_id = 1: the subject
-- param limit = 12: how many rows
SELECT name, role, layer, std, relative_std, changed_ratio, kurtosis_3s
FROM delta_stats
WHERE subject_id = $subject_id AND is_matrix
ORDER BY coalesce(relative_std, 0) DESC, std DESC, ordinal
LIMIT $limit;
