-- What has been scanned?
SELECT
    s.subject_id AS id,
    s.name,
    s.kind,
    s.format,
    s.status,
    count(t.tensor_id) AS tensors,
    coalesce(sum(t.n) FILTER (t.alias_of IS NULL AND t.form IS DISTINCT FROM 'codes'), 0)::UBIGINT AS parameters,
    s.bytes,
    s.revision,
    coalesce(s.finished_at, s.started_at) AS "when",
    s.uri
FROM subjects s
LEFT JOIN tensors t USING (subject_id)
GROUP BY ALL
ORDER BY s.subject_id;
