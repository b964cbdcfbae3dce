-- Which of the paper's nine models are in the warehouse (Table 8)?
-- param paper = NULL: the paper's models, as JSON; gaussmeter paper gives them
WITH paper AS (
    SELECT unnest(from_json($paper::JSON, '[{"number": "INTEGER", "subject_id": "INTEGER", "model": "VARCHAR",
        "repository": "VARCHAR", "parameters": "VARCHAR", "figure": "VARCHAR"}]')) AS p
),
sizes AS (
    SELECT subject_id, subject, count(*) AS tensors, coalesce(sum(n) FILTER (is_counted_once), 0)::UBIGINT AS n
    FROM tensor_stats
    GROUP BY subject_id, subject
)
SELECT p.model, p.parameters, p.repository, p.figure, s.subject, s.tensors, s.n
FROM paper
LEFT JOIN sizes s ON s.subject_id = p.subject_id
ORDER BY p.number, s.subject_id;
