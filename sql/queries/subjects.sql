-- What has been scanned, when, and how big is it?
-- param subject = NULL: only this subject; all when NULL
WITH sizes AS (
    SELECT subject_id, count(*) AS tensors, count(*) FILTER (reason IS NULL) AS counted, sum(n)::UBIGINT AS n
    FROM tensors
    GROUP BY subject_id
)
SELECT
    s.subject_id, s.name AS subject, s.kind, s.status, s.format, s.files, s.bytes,
    coalesce(t.tensors, 0) AS tensors,
    coalesce(t.counted, 0) AS counted,
    coalesce(t.n, 0) AS n,
    s.started_at,
    epoch(s.finished_at - s.started_at) AS seconds,
    s.uri
FROM subjects s
LEFT JOIN sizes t USING (subject_id)
WHERE $subject IS NULL OR s.name = $subject
ORDER BY s.subject_id;
