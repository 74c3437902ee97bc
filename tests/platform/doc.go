// Package platform is what stands around the workers in tests that run several of
// them: the platform's queues, table, buckets and repositories on the emulators, an
// orchestrator that behaves as the real one does, the workers as processes whose
// network can be cut, and the checks that no work was lost or done twice.
//
//	p := platform.New(t, platform.Options{})
//	project := p.AddProject("amelia", "scott")
//	w := p.StartWorker()
//	c := p.Command(project, "thread-1", site.Add{Work: time.Second})
//	p.Send(c)
//	w.Kill()
//	p.StartWorker()
//	p.AwaitAnswers(time.Minute)
//	p.AwaitRest(time.Minute)
//	p.Check()
//
// A package of tests says Main in its TestMain.
package platform
