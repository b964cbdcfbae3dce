-- Which tensors has only one of subjects a and b, or do both have in another shape or number format?
-- param a = NULL: a subject
-- param b = NULL: another subject
SELECT name, a.shape AS shape_a, b.shape AS shape_b, a.dtype AS dtype_a, b.dtype AS dtype_b
FROM (SELECT * FROM tensor_stats WHERE subject = $a) a
FULL JOIN (SELECT * FROM tensor_stats WHERE subject = $b) b USING (name)
WHERE a.shape IS DISTINCT FROM b.shape OR a.dtype IS DISTINCT FROM b.dtype
ORDER BY name, a.subject_id, b.subject_id;
