-- Which matrices hold the fewest different values, as weights that were quantised once do?
-- param subject = NULL: only this subject; all when NULL
-- param limit = 20: how many rows; all when NULL
-- Only of formats up to 16 bits, whose values are counted one by one.
SELECT t.subject, t.name, t.dtype, count(*) AS distinct_values, log2(count(*)) AS bits, t.entropy, t.n
FROM tensor_stats t
JOIN value_counts v USING (tensor_id)
WHERE t.is_matrix AND isfinite(v.value) AND t.coding <> 'f32' AND ($subject IS NULL OR t.subject = $subject)
GROUP BY t.subject_id, t.subject, t.ordinal, t.tensor_id, t.name, t.dtype, t.entropy, t.n
ORDER BY distinct_values, t.n DESC, t.subject_id, t.ordinal
LIMIT $limit;
