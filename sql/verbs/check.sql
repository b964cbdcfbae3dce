-- What is wrong with the values of one subject?
-- param subject_id = 1: the subject
-- param max_magnitude = 1e5: no weight should be larger
-- Zeros of a difference or an adapter are what did not change, and no damage.
WITH t AS (
    SELECT t.*, s.kind IN ('delta', 'adapter') AS is_difference
    FROM tensor_stats t
    JOIN subjects s USING (subject_id)
    WHERE subject_id = $subject_id AND n > 0
),
findings AS (
    SELECT ordinal, name AS tensor, 'nan' AS problem,
           format('{:,} of {:,} elements are NaN', nan, n) AS detail
    FROM t WHERE nan > 0
    UNION ALL
    SELECT ordinal, name, 'infinite',
           format('{:,} elements are +infinity and {:,} are -infinity, of {:,}', pos_inf, neg_inf, n)
    FROM t WHERE pos_inf + neg_inf > 0
    UNION ALL
    SELECT ordinal, name, 'zero', format('all {:,} elements are zero', n)
    FROM t WHERE n > 1 AND zeros = n AND NOT is_difference
    UNION ALL
    SELECT ordinal, name, 'constant', format('all {:,} elements are {}', n, min)
    FROM t WHERE n > 1 AND finite = n AND min = max AND zeros < n
    UNION ALL
    SELECT ordinal, name, 'dead rows', format('{:,} of {:,} rows are zero', zero_rows, iid_matrix[1])
    FROM t WHERE zero_rows > 0 AND zeros < n AND NOT is_difference  -- known after scan --iid
    UNION ALL
    SELECT ordinal, name, 'magnitude', format('values reach {} and {}, beyond {}', min, max, $max_magnitude::DOUBLE)
    FROM t WHERE greatest(abs(min), abs(max)) > $max_magnitude
)
SELECT tensor, problem, detail FROM findings ORDER BY ordinal, problem;
