-- Which subjects share tensors with the same name and the same counts, as a model and its offspring do?
-- param subject = NULL: only this subject; all when NULL
SELECT a.subject AS subject_a, b.subject AS subject_b, count(*) AS equal_tensors, sum(a.n)::UBIGINT AS equal_n
FROM tensor_stats a
JOIN tensor_stats b USING (name, coding, n, zeros, min, max, mean, m2, m3, m4)
WHERE a.subject_id < b.subject_id AND a.min < a.max
    AND ($subject IS NULL OR a.subject = $subject OR b.subject = $subject)
GROUP BY a.subject_id, a.subject, b.subject_id, b.subject
ORDER BY equal_n DESC, a.subject_id, b.subject_id;
