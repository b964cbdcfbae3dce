-- How do the tensors of two subjects differ, one by one?
-- param a = 1: a subject
-- param b = 2: another subject
-- Over the temporary table `pairs`: which tensor is which, whether the counts are the same, and how far apart they are.
WITH a AS (SELECT * FROM tensor_stats WHERE subject_id = $a),
b AS (SELECT * FROM tensor_stats WHERE subject_id = $b)
SELECT
    coalesce(a.name, b.name) AS name,
    CASE
        WHEN b.tensor_id IS NULL THEN 'only in a'
        WHEN a.tensor_id IS NULL THEN 'only in b'
        WHEN p.identical THEN 'identical'
        WHEN a.reason IS NOT NULL OR b.reason IS NOT NULL THEN 'not counted'
        WHEN a.shape <> b.shape THEN 'other shape'
        ELSE 'different'
    END AS state,
    coalesce(a.part, b.part) AS part,
    coalesce(a.layer, b.layer) AS layer,
    coalesce(a.role, b.role) AS role,
    a.dtype AS dtype_a, b.dtype AS dtype_b,
    a.std AS std_a, b.std AS std_b,
    abs(b.std - a.std) AS std_gap,
    b.std / nullif(a.std, 0) AS std_ratio,
    p.w1, p.w1_error, p.ks, p.ks_error,
    coalesce(a.is_matrix AND b.is_matrix, false) AS is_matrix,
    CASE WHEN b.name <> a.name THEN b.name END AS name_b
FROM a
FULL JOIN pairs p ON p.tensor_a = a.tensor_id
FULL JOIN b ON b.tensor_id = p.tensor_b
ORDER BY a.ordinal, b.ordinal;
