// Package rewrite shows how a text of SQL looks when what each run would decide anew has been decided: the
// calls of random and randomblob, and those of the functions of time that ask for the present, are replaced
// by literals, as rqlite does before it writes a statement into its log.
//
// The text is cut into tokens by SQLite's rules (lex.go) and written again one after the other (rewrite.go):
// keywords in upper case, names in double quotes, one space where there was any, no comments. There is no
// parser of SQL here, so that what a word is has to follow from itself and its neighbours (words.go). Words that
// SQLite takes for a keyword or for a name, as the grammar has it, stay as written where that is in doubt,
// which is always right. So does, byte for byte, every statement that begins with ALTER, CREATE or PRAGMA: a
// schema keeps the text that somebody wrote, its calls included, which are run later and often. Only in
// CREATE TABLE … AS SELECT, whose query is run at once, the calls are replaced.
//
// A text that SQLite cannot run may be accepted; an error is reported for what shows in the tokens: unknown
// ones, a statement with an unknown beginning, parentheses and operands that are missing. In one place the
// result means more than the original, as it does in rqlite: a name in double quotes that is the name of
// nothing is a text to SQLite, so that what was an error may not be one.
//
// The package is a function of its arguments. It knows no database.
package rewrite
