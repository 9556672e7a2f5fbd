service Hello {
  string say(1: string who),
  string bye(1: string who),
}
