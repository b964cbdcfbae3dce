-- What does another warehouse have to know of a subject?
-- param subject_id = 1: the subject
SELECT name AS subject, * EXCLUDE (subject_id, name, parent_ids, status) REPLACE (spec::VARCHAR AS spec)
FROM subjects
WHERE subject_id = $subject_id AND status = 'complete';
