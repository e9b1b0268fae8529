"""What a config allows and its writer may regret, said before anything is asked. What cannot work, config.load refuses."""
