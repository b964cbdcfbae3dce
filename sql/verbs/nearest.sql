-- Which subjects have the sigma profile nearest to that of one subject?
-- param subject_id = 1: the subject
-- param kind = NULL: only of this kind, or `all`; when NULL what was learnt among its like, weights among theirs
-- param limit = 10: how many rows; all when NULL
-- Over the temporary table `keys`: names of tensors, and what they are without wrappers. A pair of
-- matrices has one name, or else names that only wrappers tell apart, each the only such of its subject. Subjects
-- that share less than half of the matrices come last.
WITH others AS (
    SELECT s.subject_id, s.name AS subject, s.kind, s.uri
    FROM subjects s
    JOIN subjects this ON this.subject_id = $subject_id
    WHERE s.status = 'complete' AND s.subject_id <> this.subject_id
        AND CASE WHEN $kind IS NULL THEN (s.kind IN ('delta', 'adapter')) = (this.kind IN ('delta', 'adapter'))
                 ELSE $kind IN ('all', s.kind) END
),
own AS (
    SELECT name, key, std, count(*) OVER (PARTITION BY key) = 1 AS is_only
    FROM tensor_stats
    JOIN keys USING (name)
    WHERE subject_id = $subject_id AND is_matrix AND std > 0
),
pairs AS (
    SELECT
        t.subject_id, own.name, any_value(own.std) AS std,
        coalesce(
            any_value(t.std) FILTER (t.name = own.name),
            CASE WHEN count(*) = 1 AND any_value(own.is_only) THEN any_value(t.std) END
        ) AS its_std
    FROM tensor_stats t
    JOIN keys USING (name)
    JOIN own USING (key)
    WHERE t.is_matrix AND t.std > 0
    GROUP BY t.subject_id, own.name
)
SELECT
    o.subject_id AS id, o.subject, o.kind,
    profile_distance(p.std, p.its_std) AS distance,
    profile_correlation(p.std, p.its_std) AS correlation,
    std_gap(p.std, p.its_std) AS std_gap,
    count(*) AS matched,
    any_value(n.own_matrices) AS matrices,
    o.uri
FROM pairs p
JOIN others o USING (subject_id)
CROSS JOIN (SELECT count(*) AS own_matrices FROM own) n
WHERE p.its_std IS NOT NULL
GROUP BY o.subject_id, o.subject, o.kind, o.uri
ORDER BY 2 * count(*) >= any_value(n.own_matrices) DESC, distance, id
LIMIT $limit;
