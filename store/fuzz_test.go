package store

import "testing"

// FuzzParsePeers makes sure that what is accepted is a membership that Raft can run with.
func FuzzParsePeers(f *testing.F) {
	f.Add([]byte(`[{"id":"a","address":"h:1"},{"id":"b","address":"h:2","non_voter":true}]`))
	f.Add([]byte(`[{"id":"","address":"http://h:1"}]`))
	f.Add([]byte(`null`))
	f.Fuzz(func(t *testing.T, data []byte) {
		c, err := parsePeers(data)
		if err != nil {
			return
		}
		ids, addrs, voters := make(map[string]bool), make(map[string]bool), 0
		for _, sv := range c.Servers {
			if sv.ID == "" || sv.Address == "" || ids[string(sv.ID)] || addrs[string(sv.Address)] {
				t.Fatalf("accepted %+v", c.Servers)
			}
			ids[string(sv.ID)], addrs[string(sv.Address)] = true, true
			if sv.Suffrage == 0 {
				voters++
			}
		}
		if voters == 0 {
			t.Fatalf("accepted %+v without a voter", c.Servers)
		}
	})
}
