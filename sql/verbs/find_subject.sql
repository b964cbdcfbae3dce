-- Which complete subjects go by this number, name or place?
-- param wanted = NULL: a number, a name, or the beginning of a name
-- param place = NULL: a path
SELECT
    subject_id, name,
    CASE
        WHEN subject_id::VARCHAR = $wanted THEN 0
        WHEN name = $wanted OR uri = $place OR uri = $wanted THEN 1
        WHEN starts_with(lower(name), lower($wanted)) THEN 2
        ELSE 3
    END AS distance
FROM subjects
WHERE status = 'complete'
ORDER BY distance, subject_id DESC;
