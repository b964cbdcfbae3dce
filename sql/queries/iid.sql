-- Which roles are not i.i.d.?
-- param subject = NULL: only this subject; all when NULL
-- Of matrices that were scanned with --iid. Of i.i.d. ones each number is inside its limits in 95 of 100 cases, so a role
-- departs where more matrices are outside than a twentieth and three standard deviations. *_outside are matrices.
SELECT * EXCLUDE (subject_id)
FROM iid_roles
WHERE $subject IS NULL OR subject = $subject
ORDER BY subject_id, verdict = 'i.i.d.', role;
