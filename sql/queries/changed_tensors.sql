-- Which tensors are distributed differently in subject b than in subject a?
-- param a = NULL: a subject
-- param b = NULL: another subject
-- param limit = 20: how many rows; all when NULL
SELECT
    a.name, a.dtype AS dtype_a, b.dtype AS dtype_b,
    b.std - a.std AS std_difference,
    a.std AS std_a, b.std AS std_b,
    a.mean AS mean_a, b.mean AS mean_b,
    a.kurtosis_3s AS kurtosis_3s_a, b.kurtosis_3s AS kurtosis_3s_b
FROM tensor_stats a
JOIN tensor_stats b USING (name)
WHERE a.subject = $a AND b.subject = $b
    AND (a.n, a.finite, a.zeros, a.min, a.max, a.mean, a.m2, a.m3, a.m4)
        IS DISTINCT FROM (b.n, b.finite, b.zeros, b.min, b.max, b.mean, b.m2, b.m3, b.m4)
ORDER BY abs(std_difference) DESC, a.subject_id, b.subject_id, a.ordinal
LIMIT $limit;
