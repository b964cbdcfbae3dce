-- Which complete simulation has this fingerprint?
-- param fingerprint = NULL: what it was made with
-- param spec = NULL: the same as JSON
SELECT subject_id
FROM subjects
WHERE kind = 'simulation' AND status = 'complete' AND fingerprint = $fingerprint AND spec::VARCHAR = $spec
ORDER BY subject_id DESC;
