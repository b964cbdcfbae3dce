-- What is one subject, and what is in it?
-- param subject_id = 1: the subject
SELECT
    s.subject_id, s.name, s.kind, s.uri, s.format, s.revision, s.fingerprint, s.files, s.bytes, s.engine_version,
    s.started_at, s.finished_at, epoch(s.finished_at - s.started_at) AS seconds,
    s.parent_ids, s.spec::VARCHAR AS spec,
    count(t.tensor_id) AS tensors,
    count(*) FILTER (t.is_matrix) AS matrices,
    count(*) FILTER (t.reason IS NOT NULL) AS not_counted,
    coalesce(sum(t.n) FILTER (t.is_counted_once), 0)::UBIGINT AS parameters,
    string_agg(DISTINCT t.dtype, ', ' ORDER BY t.dtype) AS dtypes
FROM subjects s
LEFT JOIN tensor_stats t USING (subject_id)
WHERE s.subject_id = $subject_id
GROUP BY ALL
ORDER BY s.subject_id;
