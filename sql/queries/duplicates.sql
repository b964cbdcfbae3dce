-- Which tensors of a subject have the same counts, and so are probably tied or copied?
-- param subject = NULL: only this subject; all when NULL
-- A transposed or shuffled copy has them too. Constant tensors are left out.
SELECT subject, count(*) AS copies, n, dtype, list(name ORDER BY ordinal) AS names
FROM tensor_stats
WHERE min < max AND ($subject IS NULL OR subject = $subject)
GROUP BY subject_id, subject, dtype, n, finite, zeros, min, max, mean, m2, m3, m4, entropy
HAVING count(*) > 1
ORDER BY subject_id, n DESC, min(ordinal);
