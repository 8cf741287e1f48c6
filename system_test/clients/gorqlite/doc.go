// Command gorqlite uses a cluster as programs do that use rqlite's client for Go. It is given the address of one
// node and finds the others. Standard output and input are the conversation with the test that has started it:
//
//	request METHOD URL BODY     sent, as far as what is sent can be foretold
//	kill                        the leader shall be killed; the program goes on meanwhile
//	killed                      it is (input)
//	acknowledged N              row N of the table acked is in the database
//
// The program ends with an error if anything is not as the client promises.
package main
