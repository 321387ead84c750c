"""What `import practise_deploy` offers: the stages of a build as functions, over objects that are in memory."""
