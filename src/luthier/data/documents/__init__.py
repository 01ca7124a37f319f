"""Documents, from a file to passages and to questions with answers that stand in it.

reading            which files, and each as blocks (`markdown`; `extract` in a limited process for PDF, DOCX, HTML)
blocks             the one shape of what every kind of file holds
passages           blocks in pieces of about 200 words, with page or line and heading
pairs              a question and its answer with the quote that it rests on
rules              the pairs that documents make by themselves, with `table_rules`; `wording`: how people would ask for it
quoting            a pair with its answer word for word; `support`: whether a passage holds what a pair says
generation         what models are asked, by `prompts/`, and how their replies are read; `paraphrases`: other words by rules
records            a folder or file of documents as rows, divided by document
"""
