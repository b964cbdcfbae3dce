-- What does each code stand for?
SELECT * FROM codes ORDER BY coding, code;
