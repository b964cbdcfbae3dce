-- Which subjects was one made of, and which were made of it?
-- param subject_id = 1: the subject
WITH links AS (
    SELECT s.subject_id AS child_id, unnest(s.parent_ids) AS parent_id FROM subjects s WHERE s.status = 'complete'
),
near AS (
    SELECT DISTINCT parent_id AS subject_id, 'made from' AS relation FROM links WHERE child_id = $subject_id
    UNION ALL
    SELECT DISTINCT child_id, 'made of it' FROM links WHERE parent_id = $subject_id
),
learnt AS (
    SELECT
        subject_id,
        sum(n - zeros) / nullif(sum(n), 0) AS changed_ratio,
        avg(std) FILTER (is_matrix) AS std
    FROM delta_stats
    GROUP BY subject_id
)
SELECT n.relation, s.subject_id, s.name, s.kind, s.uri, l.changed_ratio, l.std
FROM near n
JOIN subjects s USING (subject_id)
LEFT JOIN learnt l USING (subject_id)
WHERE s.status = 'complete'
ORDER BY n.relation, s.subject_id;
